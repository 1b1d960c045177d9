"""Decides what a deployment is to have next. Pure: imports nothing that acts."""
