"""Stores and a transport in memory: the reference for every other adapter, and the test bed."""
