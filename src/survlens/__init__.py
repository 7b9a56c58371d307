"""survlens shows what a survival model sees."""

__version__ = "0.1.0"
