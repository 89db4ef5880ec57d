"""What went wrong with the catalog or the label log, in a person's words, with what to do."""

from sqlalchemy.exc import DBAPIError

from takeover.data.catalog import CatalogError

CATALOG_FAILURES = (CatalogError, DBAPIError, OSError)  # what opening, reading and writing it may raise


def reason_of(error: BaseException) -> str:
    """One line: what happened, whether anything was saved, and what to do. For any error; the database's own words where none fit."""
    if isinstance(error, DBAPIError):
        words = str(error.orig)
        low = words.lower()
        if "locked" in low or "busy" in low:
            return "the catalog is busy: another program has been writing to it for some seconds; nothing was changed, try again"
        if "readonly" in low or "read-only" in low:
            return "the catalog can only be read here: give this account the right to write to it and to its folder; nothing was changed"
        if "full" in low:
            return "the disk with the catalog is full: free some space; nothing was changed"
        return f"the catalog failed: {words}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__
