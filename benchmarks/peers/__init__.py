"""What a good team would build instead, written and tuned in good faith, in an environment of their own.

The same requests, the same answers, the same durability: majority, journaled, acks=all, offsets committed
after the charge. Whoever makes one of them faster is thanked, here and by name.
"""
