"""Hardening methods against adversarial examples, as graphs of runs."""
