"""One photograph: decoded, kept in a shard, varied; on all cores."""
