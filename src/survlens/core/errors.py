"""The errors survlens raises on purpose.

Every message follows one template: *`argument` must RULE; got ACTUAL. NEXT STEP.*
"""


class SurvlensError(Exception):
    """Root of every error that survlens raises on purpose."""


class InvalidValueError(SurvlensError, ValueError):
    """A value breaks a stated rule."""


class InvalidTypeError(SurvlensError, TypeError):
    """A value has a type that is refused."""


class NotFittedError(SurvlensError, RuntimeError):
    """Something that has to be fitted first was asked for a result."""


class MissingDependencyError(SurvlensError, ImportError):
    """An optional library is needed; the message names the extra that brings it."""


class DataError(SurvlensError, ValueError):
    """The user's data cannot be used as they are (exit code 3 of the command line)."""


class LeakageError(DataError):
    """Rows of one patient stand on two sides of a split."""


class UsageError(SurvlensError, ValueError):
    """A setting or an argument of the command line is wrong (exit code 2)."""


class CorruptFileError(SurvlensError, OSError):
    """A file cannot be read, or holds something that is refused."""


class FitError(SurvlensError, ArithmeticError):
    """A fit failed; the message says the likely cause."""
