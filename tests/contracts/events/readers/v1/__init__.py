"""The first reader of `clinic.appointment.finished.v1`, as it was; only its imports name this folder.

It stands for every consumer that nobody upgrades. It is never changed: a test holds its digest.
"""
