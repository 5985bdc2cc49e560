"""What tests share: builders, clients, apps, processes, servers, and a ledger of what was promised."""
