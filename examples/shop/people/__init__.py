"""Accounts and mail."""
