"""What the simulated arm, its table and room look like: MJCF of visual geoms only, none of which collides."""

ASSETS = ""
LINKS = ("", "", "", "", "", "", "", "")
HAND = ""


def room(light: float) -> str:
    """Floor, table top and lights; ``light`` 1 is nominal brightness."""
    return f'<light pos="0 0 2" diffuse="{light} {light} {light}"/>'


def finger(side: int) -> str:
    """One finger; ``side`` +1 is the left one (positive y of the hand)."""
    return ""


def plate(half: float, top: float, hole_half: float, depth: float) -> str:
    """The plate with the hole, in its own frame (origin on the table below the hole)."""
    return ""


def peg(half: float, length: float) -> str:
    """The peg, in its own frame (origin at the tip, z down)."""
    return ""


def cube(half: float) -> str:
    """The cube, in its own frame (origin at its centre)."""
    return ""
