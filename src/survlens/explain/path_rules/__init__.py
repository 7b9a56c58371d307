"""Integrals along straight lines between a reference and an instance, behind one protocol, `PathRule`."""
