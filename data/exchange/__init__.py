"""Other people's formats: episodes out (LeRobotDataset v3, robomimic, MCAP, tables) and in (LeRobotDataset v3, robomimic, our own).

`selection` says which episodes and steps leave the house, `stretches` reads them, `target` keeps a half-written export from ever
having its final name; each format has a module that writes and one that reads. `adopt` makes episodes of what was read.
Every long job takes a ``progress(done, total)`` callback, which may raise `Cancelled`; called again, it goes on where it was.
"""
