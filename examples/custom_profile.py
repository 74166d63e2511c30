"""What is learned of a user, in a schema of your own: any pydantic model.

Expected output:

    $ python examples/custom_profile.py
    home='Porto' diet=<Diet.VEGAN: 'vegan'> allergies=['nuts']
    home='Porto' diet=None allergies=['nuts']
"""

import asyncio
import json
from enum import Enum
from typing import Any

from pydantic import BaseModel, Field

from memory_async import Memory


class Diet(Enum):
    VEGAN = "vegan"
    VEGETARIAN = "vegetarian"


class Guest(BaseModel):
    home: str | None = None
    diet: Diet | None = None
    allergies: list[str] = Field(default_factory=list, description="never on the plate")


EVENINGS: dict[str, dict[str, Any]] = {
    "I am Ada from Porto. I am vegan, and no nuts!": {
        "home": "Porto",
        "diet": "vegan",
        "allergies": ["nuts"],
    },
    "I eat everything again.": {"home": None, "remove_traits": ["diet"]},
}


async def model(messages: list[dict[str, Any]], *, schema: object = None) -> str:  # noqa: ARG001
    """Stands in for your model: it is asked for the traits that are new or have changed."""
    [learned] = [EVENINGS[text] for text in EVENINGS if text in messages[-1]["content"]]
    return json.dumps(learned)


async def main() -> None:
    memory = Memory("memory://", user_analysis_memory=True, user_profile_schema=Guest, model=model)
    async with memory:
        for text in EVENINGS:
            chat = memory.bind(session_id=None, user_id="ada")  # a new session every evening
            await chat.save({"role": "user", "content": text})
            await memory.drain()  # only to see it at once: `save` never waits for it
            print(await chat.profile())


if __name__ == "__main__":
    asyncio.run(main())
