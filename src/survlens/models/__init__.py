"""Encoders, fusion and head as one survival model; classical models behind the same face."""
