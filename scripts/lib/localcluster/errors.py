"""The one error that users of this package see."""


class ClusterError(Exception):
    """What went wrong and what to do about it, in a sentence; where a log says more, the message names it."""
