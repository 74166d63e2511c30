"""A knowledge base: documents in passages, in the same storage as everything else."""

from memory_async.knowledge.base import KnowledgeBase, OnProgress
from memory_async.knowledge.finding import KnowledgeHit
from memory_async.knowledge.reading import Content

__all__ = ["Content", "KnowledgeBase", "KnowledgeHit", "OnProgress"]
