"""What the simulated arm, its table and room look like: MJCF of visual geoms only, none of which collides.

Light shells, dark joints, a neutral table: nothing in the picture takes a colour that the console uses for a state. Shadows are
painted discs, because real ones cost ten times the frame.
"""

import math
import re

_VISUAL = """
<visual>
  <headlight ambient="0.30 0.30 0.31" diffuse="0.22 0.22 0.22" specular="0.05 0.05 0.05"/>
  <quality shadowsize="0" offsamples="0" numslices="24" numstacks="12"/>
  <map znear="0.02" zfar="8"/>
  <global offwidth="640" offheight="480"/>
</visual>"""
_MATERIALS = """
  <texture name="sky" type="skybox" builtin="gradient" rgb1="0.115 0.12 0.13" rgb2="0.05 0.052 0.056" width="64" height="384"/>
  <material name="table" rgba="0.43 0.445 0.46 1" specular="0.1" shininess="0.2"/>
  <material name="groove" rgba="0.395 0.41 0.425 1" specular="0.05"/>
  <material name="table_edge" rgba="0.24 0.25 0.265 1" specular="0.1"/>
  <material name="shell" rgba="0.90 0.905 0.91 1" specular="0.45" shininess="0.55"/>
  <material name="shell_shade" rgba="0.70 0.71 0.725 1" specular="0.35" shininess="0.5"/>
  <material name="joint" rgba="0.135 0.14 0.15 1" specular="0.35" shininess="0.4"/>
  <material name="joint_light" rgba="0.24 0.25 0.265 1" specular="0.35" shininess="0.4"/>
  <material name="hand" rgba="0.105 0.11 0.12 1" specular="0.4" shininess="0.5"/>
  <material name="metal" rgba="0.46 0.475 0.49 1" specular="0.7" shininess="0.7"/>
  <material name="rubber" rgba="0.075 0.078 0.082 1" specular="0.1" shininess="0.1"/>
  <material name="peg" rgba="0.20 0.56 0.47 1" specular="0.25" shininess="0.4"/>
  <material name="peg_tip" rgba="0.15 0.43 0.36 1" specular="0.25" shininess="0.4"/>
  <material name="violet" rgba="0.47 0.33 0.58 1" specular="0.25" shininess="0.4"/>
  <material name="violet_dark" rgba="0.34 0.22 0.44 1" specular="0.25" shininess="0.4"/>
  <material name="plate" rgba="0.76 0.77 0.785 1" specular="0.2" shininess="0.3"/>
  <material name="plate_side" rgba="0.27 0.28 0.295 1" specular="0.15" shininess="0.3"/>
  <material name="hole" rgba="0.10 0.105 0.11 1" specular="0"/>
  <material name="screw" rgba="0.20 0.21 0.225 1" specular="0.5" shininess="0.6"/>
  <material name="shade" rgba="0 0 0 0.085" specular="0"/>
"""
_ROUNDING = 0.45  # corner radius of rounded boxes, of their smallest half size
_ARC = (0.0, 0.15, 0.34, 0.5)  # directions per quarter turn of a corner, of pi


def assets(bodies: str) -> str:
    """Materials, and the rounded meshes that the MJCF ``bodies`` names, each in its size."""
    meshes = []
    for name in sorted(set(re.findall(r'mesh="(\w+)"', bodies))):
        x, y, z = (int(value) / 1e5 for value in name.split("_")[2:])
        meshes.append(f'<mesh name="{name}" vertex="{_rounded_box(x, y, z)}"/>')
    return f"{_VISUAL}<asset>{_MATERIALS}{''.join(meshes)}</asset>"


def _rounded_box(x: float, y: float, z: float) -> str:
    """Vertices of a box with half sizes ``x, y, z`` (m) and round edges; its hull is the mesh."""
    radius = _ROUNDING * min(x, y, z)
    vertices: list[tuple[float, ...]] = []
    for elevation in _ARC:
        for azimuth in _ARC:
            level, turn = math.pi * elevation, math.pi * azimuth
            direction = (math.cos(level) * math.cos(turn), math.cos(level) * math.sin(turn), math.sin(level))
            corner = [half - radius + radius * part for half, part in zip((x, y, z), direction, strict=True)]
            vertices.extend((sx * corner[0], sy * corner[1], sz * corner[2]) for sx in (-1, 1) for sy in (-1, 1) for sz in (-1, 1))
    return " ".join(f"{value:.6f}" for vertex in sorted(set(vertices)) for value in vertex)


def room(light: float) -> str:
    """Floor, table top and lights; ``light`` 1 is nominal brightness."""
    key, fill = 0.60 * light, 0.25 * light
    return f"""
    <light name="key" directional="true" pos="0.6 -0.9 1.6" dir="-0.75 0.35 -1.0" castshadow="false"
           diffuse="{key} {key} {0.98 * key}" specular="0.35 0.35 0.35"/>
    <light name="fill" directional="true" pos="-0.4 0.9 1.0" dir="0.3 -0.9 -0.6" castshadow="false"
           diffuse="{fill} {fill} {1.08 * fill}" specular="0 0 0"/>
    <geom class="look" type="box" size="0.62 0.60 0.004" pos="-0.17 0 -0.004" material="table"/>
    <geom class="look" type="box" size="0.62 0.60 0.018" pos="-0.17 0 -0.0265" material="table_edge"/>
    {_grooves()}{_base_shade()}"""


def _grooves() -> str:
    """The table top's grid, 15 cm wide: lines cost less than a texture, and give the eye something to judge distance by."""
    half, pitch = 0.0011, 0.15
    across = "".join(_box(f"{-0.60 + pitch * i} 0 0", f"{half} 0.60 0.0002", "groove") for i in range(8))
    return across + "".join(_box(f"-0.17 {-0.525 + pitch * i} 0", f"0.62 {half} 0.0002", "groove") for i in range(8))


def finger(side: int) -> str:
    """One finger; its frame is at the fingertip on the pad's surface, ``side`` +1 on the left (positive y of the hand)."""
    return "".join(
        (
            _box(f"0 {side * 0.0030} -0.012", "0.0095 0.0030 0.0120", "rubber"),
            _soft_box(f"0 {side * 0.0105} -0.017", "0.0100 0.0055 0.0180", "metal"),
            _soft_box(f"0 {side * 0.0160} -0.042", "0.0115 0.0110 0.0170", "metal"),
        )
    )


def plate(half: float, top: float, hole_half: float, depth: float) -> str:
    """The plate with the hole, in its own frame (origin on the table below the hole)."""
    cover, wall = 0.006, (half - hole_half) / 2
    middle = hole_half + wall
    upper, lower = top - cover / 2, (top - cover) / 2
    parts = []
    for material, z, height, grow in (("plate", upper, cover / 2, 0.0), ("plate_side", lower, lower, -0.0015)):
        across, side = half + grow, wall + grow / 2
        offset = middle + grow / 2
        for x, y, a, b in (
            (offset, 0.0, side, across),
            (-offset, 0.0, side, across),
            (0.0, offset, hole_half, side),
            (0.0, -offset, hole_half, side),
        ):
            parts.append(_box(f"{x} {y} {z}", f"{a} {b} {height}", material))
    floor = (top - depth) / 2
    parts.append(_box(f"0 0 {floor}", f"{hole_half} {hole_half} {floor}", "hole"))
    for x, y in ((0, 1), (0, -1), (1, 0), (-1, 0)):  # dark lining, so that the hole reads as deep
        lining = hole_half - 0.0002
        size = f"0.0002 {lining} {depth / 2 - 0.0006}" if x else f"{lining} 0.0002 {depth / 2 - 0.0006}"
        parts.append(_box(f"{x * lining} {y * lining} {top - depth / 2 - 0.0006}", size, "hole"))
    corner = half - 0.011
    for x in (-corner, corner):
        for y in (-corner, corner):
            parts.append(_cylinder(f"{x} {y} {top - 0.001}", f"{x} {y} {top + 0.0035}", 0.0055, "screw"))
            parts.append(_box(f"{x} {y} {top + 0.0036}", "0.004 0.0007 0.0002", "hole"))
    parts.extend(
        _box(f"0 0 {0.0008 + 0.0003 * i}", f"{half + 0.004 + 0.005 * i} {half + 0.004 + 0.005 * i} 0.0001", "shade") for i in range(4)
    )
    return "".join(parts)


def peg(half: float, length: float) -> str:
    """The peg, in its own frame (origin at the tip, z down)."""
    tip = 0.006
    return _box(f"0 0 {-tip / 2}", f"{half} {half} {tip / 2}", "peg_tip") + _box(
        f"0 0 {-(length + tip) / 2}", f"{half} {half} {(length - tip) / 2}", "peg"
    )


def cube(half: float) -> str:
    """The cube, in its own frame (origin at its centre), with lighter edges on top to show how it is turned."""
    edge = 0.0015
    strips = "".join(
        _box(f"{x * (half - edge)} {y * (half - edge)} {half}", f"{edge if x else half} {half if x else edge} 0.0004", "peg_tip")
        for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1))
    )
    return _box("0 0 0", f"{half} {half} {half}", "peg") + strips


_PAIRS = {"first": ("peg", "peg_tip", (0.0,)), "second": ("violet", "violet_dark", (-0.007, 0.007))}
"""Of things that come in an order: colour, its darker shade, and where across the top the dots sit that count them (m)."""


def sorted_cube(half: float, which: str) -> str:
    """A cube of `sort-two`, in its own frame (origin at its centre): one dot on the ``first``, two on the ``second``."""
    colour, _, dots = _PAIRS[which]
    return _box("0 0 0", f"{half} {half} {half}", colour) + "".join(
        _cylinder(f"{x} 0 {half - 0.001}", f"{x} 0 {half + 0.0004}", 0.0045, "plate") for x in dots
    )


def mark(half: float, which: str) -> str:
    """A painted square of half size ``half`` (m) on the table, in its own frame: a pale field framed in the cube's colour, with dots."""
    colour, dark, dots = _PAIRS[which]
    edge = 0.003
    frame = "".join(
        _box(f"{x * (half - edge)} {y * (half - edge)} 0.0006", f"{edge if x else half} {half if x else edge} 0.0003", colour)
        for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1))
    )
    field = _box("0 0 0.0005", f"{half} {half} 0.0002", "plate")
    return field + frame + "".join(_cylinder(f"{x} 0 0.0006", f"{x} 0 0.0010", 0.0045, dark) for x in dots)


def drop_shadow() -> str:
    """A mocap body of soft discs that the cameras put under the tool, so that height can be judged."""
    discs = "".join(_cylinder("0 0 0", f"0 0 {0.0002 + 0.00005 * i}", 0.009 + 0.005 * i, "shade") for i in range(4))
    return f'<body name="drop_shadow" mocap="true">{discs}</body>'


def _box(pos: str, size: str, material: str) -> str:
    return f'<geom class="look" type="box" pos="{pos}" size="{size}" material="{material}"/>'


def _soft_box(pos: str, size: str, material: str) -> str:
    name = "_".join(["soft_box", *(str(round(float(value) * 1e5)) for value in size.split())])
    return f'<geom class="look" type="mesh" mesh="{name}" pos="{pos}" material="{material}"/>'


def _cylinder(start: str, end: str, radius: float, material: str) -> str:
    return f'<geom class="look" type="cylinder" fromto="{start} {end}" size="{radius}" material="{material}"/>'


def _capsule(start: str, end: str, radius: float, material: str) -> str:
    return f'<geom class="look" type="capsule" fromto="{start} {end}" size="{radius}" material="{material}"/>'


def _sphere(pos: str, radius: float, material: str) -> str:
    return f'<geom class="look" type="sphere" pos="{pos}" size="{radius}" material="{material}"/>'


def _base_shade() -> str:
    return "".join(
        _cylinder(f"-0.5 0 {0.0006 + 0.0002 * i}", f"-0.5 0 {0.0007 + 0.0002 * i}", 0.145 - 0.018 * i, "shade") for i in range(2)
    )


LINKS = (
    # base
    _cylinder("0 0 0", "0 0 0.014", 0.108, "joint")
    + _cylinder("0 0 0.01", "0 0 0.10", 0.085, "shell")
    + _cylinder("0 0 0.10", "0 0 0.185", 0.072, "shell")
    + _soft_box("-0.085 0 0.065", "0.055 0.055 0.055", "shell")
    + _cylinder("0 0 0.183", "0 0 0.198", 0.066, "joint"),
    # shoulder, turns about the vertical
    _cylinder("0 0 -0.135", "0 0 -0.03", 0.068, "shell")
    + _sphere("0 0 0", 0.075, "shell")
    + _cylinder("0 -0.085 0", "0 0.085 0", 0.064, "joint")
    + _cylinder("0 -0.098 0", "0 -0.084 0", 0.056, "shell_shade")
    + _cylinder("0 0.084 0", "0 0.098 0", 0.056, "shell_shade"),
    # upper arm
    _capsule("0 -0.08 0", "0 -0.29 0", 0.056, "shell")
    + _cylinder("0 -0.165 0", "0 -0.180 0", 0.0575, "joint_light")
    + _capsule("0.01 -0.305 0", "0.07 -0.316 0", 0.050, "shell")
    + _cylinder("0.0825 -0.316 -0.062", "0.0825 -0.316 0.062", 0.052, "joint")
    + _cylinder("0.0825 -0.316 -0.070", "0.0825 -0.316 -0.061", 0.046, "shell_shade")
    + _cylinder("0.0825 -0.316 0.061", "0.0825 -0.316 0.070", 0.046, "shell_shade"),
    # forearm
    _capsule("-0.015 0.02 0", "-0.0825 0.10 0", 0.048, "shell") + _cylinder("-0.0825 0.09 0", "-0.0825 0.155 0", 0.052, "shell"),
    # forearm, turning part
    _cylinder("0 0 -0.229", "0 0 -0.219", 0.049, "joint")
    + _cylinder("0 0 -0.219", "0 0 -0.045", 0.0505, "shell")
    + _sphere("0 0 -0.03", 0.052, "shell")
    + _cylinder("0 -0.058 0", "0 0.058 0", 0.050, "joint")
    + _cylinder("0 -0.066 0", "0 -0.057 0", 0.043, "shell_shade")
    + _cylinder("0 0.057 0", "0 0.066 0", 0.043, "shell_shade"),
    # wrist head: the light, rounded box of the arm's end
    _soft_box("0.050 0.010 0", "0.094 0.056 0.055", "shell")
    + _cylinder("0.088 -0.050 0", "0.088 -0.030 0", 0.046, "joint_light")
    + _soft_box("0.144 0.030 0", "0.0025 0.010 0.020", "joint")
    + _cylinder("0.092 0.008 -0.0565", "0.092 0.008 -0.050", 0.024, "joint_light")
    + _cylinder("0.092 0.008 0.050", "0.092 0.008 0.0565", 0.024, "joint_light"),
    # flange
    _cylinder("0 0 0.040", "0 0 0.088", 0.041, "joint") + _cylinder("0 0 0.088", "0 0 0.107", 0.034, "metal"),
)

HAND = "".join(
    (
        _cylinder("0 0 -0.001", "0 0 0.010", 0.037, "joint_light"),
        _soft_box("0 0 0.030", "0.030 0.078 0.026", "hand"),
        _soft_box("0 0 0.013", "0.0315 0.070 0.012", "joint_light"),
        _box("0 0 0.0545", "0.010 0.070 0.0035", "metal"),
        # the wrist camera
        _soft_box("0.047 0 0.018", "0.020 0.022 0.012", "joint_light"),
        _cylinder("0.060 0 0.026", "0.058 0 0.034", 0.009, "rubber"),
    )
)
