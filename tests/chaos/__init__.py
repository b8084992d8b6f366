"""Deterministic simulation of the engine, and chaos among real processes: `python -m tests.chaos`.

The code that runs is the product's own. What a seed decides here is time, the order of what is
ready, what the database does at its worst moments, what vendors do, and when a process dies.
"""
