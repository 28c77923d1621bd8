"""The paper's Table 1, at two budgets, and variants of its rows."""
