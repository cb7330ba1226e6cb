"""Figures, as matplotlib objects that any thread may draw."""
