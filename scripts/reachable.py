"""Exit status 0 when an https address answers within three seconds."""

import sys
import urllib.error
import urllib.request

TIMEOUT_S = 3.0

if __name__ == "__main__":
    try:
        with urllib.request.urlopen(urllib.request.Request(sys.argv[1], method="HEAD"), timeout=TIMEOUT_S) as answer:
            raise SystemExit(answer.status != 200)
    except (urllib.error.URLError, OSError):
        raise SystemExit(1) from None
