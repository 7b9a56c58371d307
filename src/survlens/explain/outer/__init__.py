"""The outer map A_t of F(t | x) = A_t(u(x)): what of an explanation depends on time and target, and its derivatives."""
