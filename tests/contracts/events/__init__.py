"""The event as a contract: golden bytes, frozen readers, and what holds today's code against them."""
