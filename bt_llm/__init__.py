"""bt_llm."""
