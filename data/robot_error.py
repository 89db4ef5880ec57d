"""What a robot or its simulator raises: the bridge drives them, policies are evaluated with them."""


class RobotError(RuntimeError):
    """A robot cannot be connected to, read or commanded; says what to do."""
