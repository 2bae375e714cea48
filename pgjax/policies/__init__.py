"""Policies: the contract, and those that come with pgjax."""
