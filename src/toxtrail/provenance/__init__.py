"""What identifies a result: content hashes, manifests, conditions."""
