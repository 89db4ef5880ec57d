"""What the command palette (Ctrl+K) offers."""

from functools import partial
from typing import TYPE_CHECKING

from takeover.app.console.overlays import Command

if TYPE_CHECKING:
    from takeover.app.console.window import MainWindow


def commands(window: "MainWindow") -> list[Command]:
    """(what it does, its key, how), for everything the palette knows."""

    def run(act: str) -> Command:
        label, keys = labels[act]
        return (label, keys, partial(window.act, act))

    labels = {
        "stop": ("STOP the robot", "Esc"),
        "start": ("Start: the policy drives", "Enter"),
        "hold": ("Hold", "P"),
        "resume": ("Resume the policy", "P"),
        "next": ("End this episode, next", "N"),
        "success": ("Outcome: success", "Enter"),
        "failure": ("Outcome: failure", "Backspace"),
        "undo": ("Undo the last outcome", "Ctrl+Z"),
        "mark": ("Mark this moment", "M"),
        "veto": ("Not success: veto the learned reward", "V"),
        "mark_success": ("Mark this moment as success, for the learned reward", ""),
        "record": ("Collect demonstrations", ""),
        "collect": ("Start a block of demonstrations", ""),
        "redo": ("Redo this demonstration", ""),
        "finish": ("Finish after this episode", ""),
        "finish_now": ("End the block now", ""),
        "frame:view": ("Control frame: view", ""),
        "frame:base": ("Control frame: base", ""),
        "frame:tool": ("Control frame: tool", ""),
        "speed_up": ("Faster", "]"),
        "speed_down": ("Slower", "["),
    }
    found = [run(name) for name in labels]
    found += [
        (f"Go to {title}", f"Ctrl+{i + 1}", partial(window.show_page, i))
        for i, title in enumerate(("Operate", "Review", "Insights", "Setup"))
    ]
    names = window.controller.client.processes.states if window.controller.client.processes else {}
    found += [(f"Restart the {name}", "", partial(window.act, f"restart:{name}")) for name in names if name != "console"]
    found.append(("Close Takeover", "", window.close))
    return found
