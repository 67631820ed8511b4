"""Faults that a run must outlive: killed processes, flipped bits, full and read-only disks, runs started together."""
