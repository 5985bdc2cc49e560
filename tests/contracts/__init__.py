"""What the clinic promises other programs, kept as files: the event's golden bytes, the OpenAPI documents.

What every store and every transport must do is shipped: see `clinic.testing`.
"""
