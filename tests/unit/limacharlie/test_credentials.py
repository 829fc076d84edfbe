"""Where credentials and addresses are found."""

import pytest
from pydantic import ValidationError

from pipeline.core.errors import AuthenticationError, ConfigError
from pipeline.limacharlie.config import LimaCharlieConfig, OrgConfig
from pipeline.limacharlie.credentials import Credentials, credentials_file, discover
from pipeline.limacharlie.endpoints import resolve

OID = "8cbe27f4-bfa1-4afb-ba19-138cd51389cd"
OTHER = "00000000-0000-0000-0000-000000000001"


def facts(found: Credentials) -> tuple[str | None, str | None, str]:
    return found.oid, found.uid, found.api_key.get_secret_value()


@pytest.fixture
def find(tmp_path):
    """Look for credentials with these variables, this section and the files under tmp_path as home."""

    def look(environ=None, **section):
        return discover(LimaCharlieConfig(**section), environ or {}, home=tmp_path)

    return look


@pytest.fixture
def stored(tmp_path):
    """Write the credentials file of LimaCharlie's tools."""
    path = tmp_path / ".limacharlie.d" / "config.yaml"
    path.parent.mkdir()

    def write(text):
        path.write_text(text)
        return path

    return write


def test_the_section_comes_first(find, stored):
    """An explicit key takes neither key nor user from elsewhere."""
    stored(f"{{oid: {OTHER}, api_key: stored, uid: stored}}")
    environ = {"LC_OID": OTHER, "LC_API_KEY": "env", "LC_UID": "env"}
    assert facts(find(environ, oid=OID, api_key="k")) == (OID, None, "k")
    assert facts(find(environ, api_key="k")) == (OTHER, None, "k")


def test_the_environment_comes_before_the_files(find, stored):
    """LC_API_KEY makes LC_OID and LC_UID the credentials, whole."""
    stored(f"{{oid: {OTHER}, api_key: stored, uid: stored}}")
    assert facts(find({"LC_OID": OID, "LC_API_KEY": "env"})) == (OID, None, "env")
    assert facts(find({"LC_OID": OTHER, "LC_API_KEY": "env"}, oid=OID)) == (OID, None, "env")


def test_the_default_environment_of_the_file_is_the_last(find, stored):
    """An analyst with LimaCharlie's tools set up needs nothing else."""
    stored(f"oid: {OID}\napi_key: stored\nuid: u\n")
    assert facts(find()) == (OID, "u", "stored")


def test_variables_without_a_key_replace_parts_of_the_file(find, stored):
    """LC_OID alone chooses another organization."""
    stored(f"oid: {OTHER}\napi_key: stored\n")
    assert facts(find({"LC_OID": OID})) == (OID, None, "stored")


def test_a_named_environment_is_found_in_three_ways(find, stored):
    """By the section, by LC_CURRENT_ENV, by the file's own choice; the section's wins over LC_API_KEY."""
    text = f"env: {{prod: {{oid: {OID}, api_key: prod}}, lab: {{oid: {OTHER}, api_key: lab}}}}\n"
    stored(text)
    assert facts(find({"LC_API_KEY": "env"}, environment="prod")) == (OID, None, "prod")
    assert facts(find({"LC_CURRENT_ENV": "lab"})) == (OTHER, None, "lab")
    stored(text + "current_env: prod\n")
    assert facts(find()) == (OID, None, "prod")


def test_a_named_environment_that_is_missing_is_an_error(find, stored):
    """It does not fall back to other credentials in silence."""
    stored(f"oid: {OID}\napi_key: stored\n")
    with pytest.raises(ConfigError, match="no environment 'prod'"):
        find(environment="prod")


def test_ephemeral_credentials_read_no_file(find, stored):
    """LC_EPHEMERAL_CREDS keeps the disk out."""
    stored(f"oid: {OID}\napi_key: stored\n")
    with pytest.raises(AuthenticationError, match="no LimaCharlie API key"):
        find({"LC_EPHEMERAL_CREDS": "1"})


def test_the_file_is_where_the_tools_have_it(tmp_path):
    """LC_CREDS_FILE, LC_LEGACY_CONFIG, LC_CONFIG_DIR, the new place, the old place."""
    modern = tmp_path / ".limacharlie.d" / "config.yaml"
    legacy = tmp_path / ".limacharlie"
    assert credentials_file({}, tmp_path) == modern
    legacy.write_text("")
    assert credentials_file({}, tmp_path) == legacy
    modern.parent.mkdir()
    modern.write_text("")
    assert credentials_file({}, tmp_path) == modern
    assert credentials_file({"LC_LEGACY_CONFIG": "1"}, tmp_path) == legacy
    assert str(credentials_file({"LC_CONFIG_DIR": "/etc/lc"}, tmp_path)) == "/etc/lc/config.yaml"
    assert str(credentials_file({"LC_CREDS_FILE": "/a/b", "LC_CONFIG_DIR": "/etc/lc"}, tmp_path)) == "/a/b"


def test_a_browser_login_is_told_which_key_to_create(find, stored):
    """An OAuth login alone cannot stream."""
    stored(f"oid: {OID}\noauth: {{id_token: SECRETTOKEN, refresh_token: x}}\n")
    with pytest.raises(AuthenticationError, match=r"output\.list,output\.set,output\.del") as caught:
        find()
    assert "SECRETTOKEN" not in str(caught.value)


def test_without_any_credentials_the_variables_are_named(find):
    """The message says what to set."""
    with pytest.raises(AuthenticationError, match="LC_OID and LC_API_KEY"):
        find()


@pytest.mark.parametrize(
    "text",
    [
        "api_key: 'TOPSECRET",
        "- TOPSECRET",
        "api_key: TOPSECRET\napi_key: TOPSECRET\n",
        "api_key: [TOPSECRET]",
        "oid: TOPSECRET",
    ],
)
def test_a_broken_file_is_named_and_not_quoted(find, stored, text):
    """A key in it does not reach the error, nor what the error is chained to."""
    path = stored(text)
    with pytest.raises(ConfigError) as caught:
        find()
    assert str(path) in str(caught.value)
    assert "TOPSECRET" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(("key", "environ"), [(None, {"LC_API_KEY": "k"}), ("k", {}), (None, {})])
def test_a_wrong_variable_is_named_and_explained(find, key, environ):
    """Whatever the key comes with, a wrong LC_OID is told in a sentence."""
    with pytest.raises(ConfigError) as caught:
        find({"LC_OID": "notauuid", **environ}, api_key=key)
    assert caught.value.what.startswith("The value of LC_OID is wrong: an organization id is a UUID, like ")
    assert "notauuid" not in str(caught.value)


def test_a_wrong_value_of_the_file_is_named(find, stored):
    """The key in the file stands for it."""
    path = stored("api_key: [x]")
    with pytest.raises(ConfigError) as caught:
        find()
    assert "The value of `api_key` is wrong: it should be a valid string." == caught.value.what
    assert str(path) in caught.value.where


def test_a_huge_file_is_not_read(find, stored):
    """A credentials file is small."""
    stored("#" * (2 << 20))
    with pytest.raises(ConfigError, match="too large"):
        find()


def test_a_key_of_its_own_replaces_the_shared_one_and_its_user():
    """One of several organizations takes from the section what it has not itself."""
    shared = LimaCharlieConfig(oid=OID, api_key="user-key", uid="u")
    narrowed = shared.for_org(OrgConfig(oid=OTHER))
    assert (narrowed.oid, narrowed.uid, narrowed.api_key.get_secret_value()) == (OTHER, "u", "user-key")
    own = shared.for_org(OrgConfig(oid=OTHER, api_key="org-key"))
    assert (own.oid, own.uid, own.api_key.get_secret_value()) == (OTHER, None, "org-key")


def test_empty_values_count_as_not_set():
    """`${LC_UID:-}` gives an empty text."""
    section = LimaCharlieConfig(oid="", uid="", api_key="", url="")
    assert (section.oid, section.uid, section.api_key, section.url) == (None, None, None, None)


@pytest.mark.parametrize("oid", ["-", "x", "../who", OID + "/x", 5])
def test_an_organization_id_is_a_uuid(oid):
    """Nothing else gets into an address."""
    with pytest.raises(ValidationError, match="UUID"):
        LimaCharlieConfig(oid=oid)


@pytest.mark.parametrize(
    "url", ["api.example.com", "ftp://x", "https://", "https://u:p@x", "https://x/?q", "https://x:99999", 5]
)
def test_an_address_is_checked(url):
    """A mistake in an address does not send a key somewhere."""
    with pytest.raises(ValidationError, match="https://api"):
        LimaCharlieConfig(url=url)


def test_the_real_hosts_are_the_default():
    """Without any address."""
    found = resolve(LimaCharlieConfig(), {})
    assert (found.jwt, found.api) == ("https://jwt.limacharlie.io/", "https://api.limacharlie.io/v1")
    assert found.stream("stream-tmp", OID) == f"https://stream-tmp.limacharlie.io/{OID}"
    assert found.stream("stream", OID) == f"https://stream.limacharlie.io/{OID}"
    assert found.service("ai") is None


@pytest.mark.parametrize("environ", [{}, {"LC_URL": "http://a:1/"}])
def test_one_base_address_stands_for_every_service(environ):
    """From the section or from LC_URL."""
    found = resolve(LimaCharlieConfig(url=None if environ else "http://a:1"), environ)
    assert (found.jwt, found.api) == ("http://a:1/", "http://a:1/v1")
    assert found.stream("stream-tmp", OID) == f"http://a:1/stream-tmp/{OID}"
    assert found.stream("stream", OID) == f"http://a:1/stream/{OID}"
    assert found.service("ai") == "http://a:1"


def test_a_single_endpoint_replaces_one():
    """And `stream` stands for both stream services unless the other is given."""
    section = LimaCharlieConfig(
        url="http://a", endpoints={"api": "http://b/v1", "stream": "http://c", "ai": "http://d"}
    )
    found = resolve(section, {"LC_API_URL": "http://e", "LC_JWT_URL": "http://e"})
    assert (found.jwt, found.api, found.service("ai")) == ("http://a/", "http://b/v1", "http://d")
    assert found.stream("stream-tmp", OID) == f"http://c/{OID}"


def test_the_variables_of_lima_charlies_tools_count():
    """LC_API_URL and LC_JWT_URL, and a wrong one is an error that names it."""
    found = resolve(LimaCharlieConfig(), {"LC_API_URL": "http://a", "LC_JWT_URL": "http://b", "LC_URL": "http://c"})
    assert (found.jwt, found.api) == ("http://b/", "http://a/v1")
    with pytest.raises(ConfigError, match="LC_API_URL"):
        resolve(LimaCharlieConfig(), {"LC_API_URL": "nonsense"})
