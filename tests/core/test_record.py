import pytest

from lorakit_cli.core.record import Record


class Point(Record):
    x: int
    y: int = 2


def test_fields_are_given_in_order_or_by_name():
    assert Point(1) == Point(1, 2) == Point(x=1, y=2) == Point(5)._replace(x=1)
    assert hash(Point(1)) == hash(Point(1, 2))
    assert Point(1) != Point(2)
    assert repr(Point(1)) == "Point(x=1, y=2)"


@pytest.mark.parametrize(("values", "named"), [((), {}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((1,), {"z": 1})])
def test_a_field_too_few_too_many_or_twice_is_refused(values, named):
    with pytest.raises(TypeError):
        Point(*values, **named)


def test_a_record_is_not_changed():
    with pytest.raises(AttributeError):
        Point(1).x = 3
