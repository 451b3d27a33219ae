"""Inventory and shop."""
