"""The colours of the design, as plain text: models use them without Qt."""

BG = "#1E1F22"  # window
SURFACE = "#26282C"  # panels
RAISED = "#30333A"  # selected row, button
LINE = "#3B3E45"  # hairlines
CONTROL = "#4A4E57"  # borders of inputs and buttons
KEY_BORDER = "#565B64"
OUTLINE = "#6A707A"  # device pictures
GRID = "#34373D"
T1 = "#E8EAED"  # values
T2 = "#B8BDC4"  # labels
T3 = "#9AA1AB"  # units and notes
READY = "#B8BDC4"
POLICY = "#56B4E9"
TAKEOVER = "#E69F00"
HOLD = "#F0E442"
STOP = "#FF5A36"
INK = "#17181A"  # text on a filled colour
STOP_INK = "#160804"
FAULT_ROW = "#3A2723"
RAMP = "#4A3B1A"  # under the ramp hatch
BAND = "#2B2D31"  # empty part of the who-drove strip
