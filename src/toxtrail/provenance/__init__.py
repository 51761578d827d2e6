"""Identity of results: content hashes, manifests, measurement conditions."""
