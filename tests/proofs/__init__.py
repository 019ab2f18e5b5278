"""The ledger's promises, proved on hubs that are raced, killed and cut off from their database."""
