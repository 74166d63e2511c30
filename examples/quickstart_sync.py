"""Remember a conversation without await: in a script, a thread, a view.

Expected output:

    $ python examples/quickstart_sync.py
    0 turns were remembered
    now there are 2
    $ python examples/quickstart_sync.py
    2 turns were remembered
    now there are 4
"""

from memory_async import sync


def answer(question: str) -> str:
    """Stands in for your model."""
    return f"You said: {question}"


def main() -> None:
    url = "sqlite:///quickstart_sync.db"
    with sync.Memory(url, "chat-1", "ada", full_session_memory=True) as memory:
        print(len(memory.turns()), "turns were remembered")
        for text in ("My cat is called Pim.", "What is my cat called?"):
            question = {"role": "user", "content": text}
            messages = [*memory.load().to_openai(), question]
            reply = {"role": "assistant", "content": answer(messages[-1]["content"])}
            memory.save([question, reply])
        print("now there are", len(memory.turns()))


if __name__ == "__main__":
    main()
