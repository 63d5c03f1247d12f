"""What stands in an exported graph besides its weights."""

import onnx


def words(content: bytes) -> bytes:
    """The graph without its weights: three letters in a row are bound to turn up in enough random bytes."""
    model = onnx.load_from_string(content)
    constants = [attribute.t for node in model.graph.node for attribute in node.attribute]
    for tensor in (*model.graph.initializer, *constants):
        for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data"):
            tensor.ClearField(field)
    rest: bytes = model.SerializeToString()
    return rest
