"""Tests of the whole on a real cluster, and the program that starts that cluster."""
