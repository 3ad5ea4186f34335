"""The containers of the project, as somebody outside of them sees and treats them."""
