"""Honest scores: prediction, chance, regions."""
