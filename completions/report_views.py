"""`/api/usage/` and `/api/budgets/`: what a project used, and what is left to it."""

from zoneinfo import ZoneInfo

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from completions import balances, reports, rollups
from completions.balances import Balance
from completions.models import Project
from completions.report_serializers import (
    BalancesSerializer,
    BudgetQuerySerializer,
    UsageQuerySerializer,
    UsageReportSerializer,
    usage_body,
    usage_csv,
)
from completions.reports import Question, UsageRow
from completions.serializers import dollars
from completions.views import PROJECT_HEADER, caller_of
from providers import pricing
from providers.types import JSON


class UsageView(APIView):
    @extend_schema(
        tags=["usage and budgets"],
        parameters=[PROJECT_HEADER, UsageQuerySerializer],
        responses={
            (200, "application/json"): UsageReportSerializer,
            (200, "text/csv"): OpenApiTypes.STR,
        },
    )
    def get(self, request: Request) -> HttpResponseBase:
        """What your project used and spent, as a series.

        From hourly sums, which follow the calls within about a minute (`summed_until` says how far they are).
        They are of whole hours (UTC), which count for the day in which they begin. At most 2000 buckets and
        20000 rows.
        """
        asked = UsageQuerySerializer(data=request.query_params.dict())
        asked.is_valid(raise_exception=True)
        given: JSON = asked.validated_data
        project = Project.objects.get(pk=caller_of(request).project_id)
        question = Question(
            project_ids=(project.pk,),
            since=given["since"],
            until=given["until"],
            interval=given["interval"],
            zone=ZoneInfo(project.time_zone),
            group_by=given.get("group_by"),
        )
        rows = reports.usage_series(question)
        if given["format"] == "csv":
            return _download(usage_csv(rows), f"usage-{project.slug}.csv")
        return Response(_report(question, rows))


def _report(question: Question, rows: list[UsageRow]) -> JSON:
    summed_until = rollups.summed_until()
    total = usage_body(reports.usage_total(question))
    return {
        "since": question.since.astimezone(question.zone).isoformat(),
        "until": question.until.astimezone(question.zone).isoformat(),
        "interval": question.interval,
        "group_by": question.group_by,
        "time_zone": question.zone.key,
        "summed_until": summed_until.isoformat() if summed_until else None,
        "total": {name: value for name, value in total.items() if name not in ("start", "group", "label")},
        "results": [usage_body(row) for row in rows],
    }


def _download(text: str, name: str) -> HttpResponse:
    response = HttpResponse(text, content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


class BudgetsView(APIView):
    @extend_schema(
        tags=["usage and budgets"],
        parameters=[PROJECT_HEADER, BudgetQuerySerializer],
        responses=BalancesSerializer,
    )
    def get(self, request: Request) -> Response:
        """The budgets your calls fall under: your project's, and your key's own."""
        asked = BudgetQuerySerializer(data=request.query_params.dict())
        asked.is_valid(raise_exception=True)
        found = balances.balances(caller_of(request), asked.validated_data.get("user", ""))
        return Response(BalancesSerializer({"results": [_budget(balance) for balance in found]}).data)


def _budget(balance: Balance) -> JSON:
    budget = balance.budget
    return {
        "id": budget.pk,
        "scope": "key" if budget.api_key else "project",
        "key": budget.api_key.name if budget.api_key else None,
        "per_end_user": budget.per_end_user,
        "end_user": balance.end_user or None,
        "amount": _dollars(balance.amount_nano),
        "spent": _dollars(balance.spent_nano),
        "held": _dollars(balance.held_nano),
        "left": _dollars(balance.left_nano),
        "hard": budget.hard,
        "period": budget.period,
        "starts_at": balance.span.start,
        "resets_at": balance.span.end,
        "alerts": balance.alerts,
    }


def _dollars(nano: int) -> str | None:
    return dollars(pricing.usd(nano))
