"""Writes payments into a parsed chat template: see chat_work for what is paid and why.

The environment pays for calls, operators, filters and tests. What Jinja compiles to plain Python
gets a filter around it here: what is printed, joined with `~`, compared, sliced or used as a key,
and each turn of a loop, macro or block.
"""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, nodes
from jinja2.visitor import NodeTransformer

from mobilemoe.checkpoint.chat_work import WorkLimitError

MAX_NODES = 10_000  # a template has one per six characters of code, or fewer
PER_NODE = 4  # units for one turn of each part
# Names that no template can spell.
PAY_WHOLE, PAY_TOP, PAY_STEP = "pay whole", "pay top", "pay step"


def add_payments(tree: nodes.Template, environment: Environment) -> nodes.Template:
    """Return `tree` with payments in it; `environment` needs filters of these names.

    Raises:
        WorkLimitError: if the template has more than MAX_NODES parts.
    """
    if sum(1 for _ in tree.find_all(nodes.Node)) > MAX_NODES:
        raise WorkLimitError(f"it has more than {MAX_NODES} parts")
    metered: nodes.Template = _Meter().visit(tree)
    metered.set_environment(environment)
    return metered


class _Meter(NodeTransformer):
    def visit_Output(self, node: nodes.Output) -> nodes.Output:
        self.generic_visit(node)
        node.nodes = [
            part if isinstance(part, nodes.TemplateData) else _paid(PAY_WHOLE, part)
            for part in node.nodes
        ]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Concat:
        self.generic_visit(node)
        node.nodes = [_paid(PAY_WHOLE, part) for part in node.nodes]
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:
        self.generic_visit(node)
        node.expr = _paid(PAY_WHOLE, node.expr)
        for operand in node.ops:
            operand.expr = _paid(PAY_WHOLE, operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Getitem:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _paid(PAY_TOP, node.node)
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Pair:
        self.generic_visit(node)
        node.key = _paid(PAY_WHOLE, node.key)
        return node

    def visit_For(self, node: nodes.For) -> nodes.For:
        step = _step(node)
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(step, lineno=node.lineno))
        if node.test is not None:
            node.test = nodes.And(step, node.test, lineno=node.lineno)
        return node

    def _visit_body(self, node: Any) -> Any:
        step = _step(node)
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(step, lineno=node.lineno))
        return node

    visit_Macro = visit_CallBlock = visit_Block = _visit_body


def _paid(name: str, value: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(value, name, [], [], None, None, lineno=value.lineno)


def _step(node: nodes.Node) -> nodes.Filter:
    """Return an expression that is true and pays for one turn of everything inside `node`."""
    units = sum(len(part.data) for part in node.find_all(nodes.TemplateData))
    units += PER_NODE * sum(1 for _ in node.find_all(nodes.Node))
    return _paid(PAY_STEP, nodes.Const(units, lineno=node.lineno))
