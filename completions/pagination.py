"""Pages of lists: by key, not by offset, so that page ten thousand costs what page one does."""

from typing import Any

from django.core.exceptions import ValidationError as DjangoValidationError
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request

MOST = 200


class NewestFirst(CursorPagination):
    """`?limit=` (1 to 200, default 50) rows a page; `next` and `previous` are links. Newest first, by id."""

    ordering = "-id"
    page_size_query_param = "limit"
    max_page_size = MOST
    page_size_query_description = f"Rows a page, 1 to {MOST}."
    cursor_query_description = "Where to go on; taken from the links `next` and `previous`."

    def get_page_size(self, request: Request) -> int | None:
        given = request.query_params.get("limit")
        if given is None:
            return self.page_size
        if not (
            given.isascii() and given.isdigit() and len(given) <= len(str(MOST)) and 1 <= int(given) <= MOST
        ):
            raise ValidationError({"limit": [f"Give a whole number from 1 to {MOST}."]})
        return int(given)

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> Any:
        self._key = queryset.model._meta.get_field(str(self.ordering).lstrip("-"))
        return super().paginate_queryset(queryset, request, view)

    def decode_cursor(self, request: Request) -> Cursor | None:
        """A cursor that no list made is the client's mistake, not an error of the database."""
        try:
            cursor = super().decode_cursor(request)
        except NotFound:
            pass
        else:
            if cursor is None or self._is_position(cursor.position):
                return cursor
        raise ValidationError({"cursor": ["This cursor was not made by this list."]})

    def _is_position(self, text: Any) -> bool:
        """Keys are unique, so a cursor made here always has a position."""
        try:
            return isinstance(text, str) and text.isprintable() and self._key.to_python(text) is not None
        except DjangoValidationError:
            return False


class BySlug(NewestFirst):
    """The same, in alphabetical order of a unique slug."""

    ordering = "slug"
