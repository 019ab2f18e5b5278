"""Django's part of the front door."""

from django.contrib import admin
from django.urls import include, path

from completions.pages import home

urlpatterns = [
    path("", home, name="home"),
    path("admin/", admin.site.urls),
    path("api/", include("completions.urls")),
]
