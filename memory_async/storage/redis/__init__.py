"""The Redis driver: Redis, Redis Cluster and Valkey."""

from memory_async.storage.redis.driver import RedisStorage

__all__ = ["RedisStorage"]
