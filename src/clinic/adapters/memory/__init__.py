"""Both contexts' stores and the transport in memory: the reference for every other adapter, and the test
bed.
"""
