"""The demo's own small parts; the whole of it is in tests/system/test_demo.py."""

from __future__ import annotations

from deploy.demo import folded


def test_a_tree_is_folded_at_a_depth_and_what_is_hidden_is_counted() -> None:
    tree = ["file", "└─ a", "   ├─ b", "   │  ├─ c", "   │  │  └─ d", "   │  └─ e", "   └─ f", "      └─ g"]
    assert folded(tree, 2) == ["file", "└─ a", "   ├─ b   ... 3 below", "   └─ f   ... 1 below"]
    assert folded(tree, 9) == tree
