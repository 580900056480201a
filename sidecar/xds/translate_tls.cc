// Transport sockets, certificates, secrets. What cannot be enforced is refused, never ignored.
#include "envoy/extensions/transport_sockets/tls/v3/secret.pb.h"
#include "sidecar/xds/translate_internal.h"

namespace weft::xds {

namespace tls3 = envoy::extensions::transport_sockets::tls::v3;

namespace {

constexpr char kSystemRoots[] = "/etc/ssl/certs/ca-certificates.crt";

model::SdsRef ToSds(const Ctx& c, const tls3::SdsSecretConfig& s) {
  model::SdsRef r;
  r.name = s.name();
  if (r.name.empty()) (c / "name").Fail("is required");
  const auto& source = s.sds_config();
  switch (source.config_source_specifier_case()) {
    case core::ConfigSource::kAds:
    case core::ConfigSource::kSelf: r.source = model::SdsRef::kAds; break;
    case core::ConfigSource::kPathConfigSource: r.source = model::SdsRef::kFile, r.path = source.path_config_source().path(); break;
    case core::ConfigSource::kPath: r.source = model::SdsRef::kFile, r.path = source.path(); break;
    case core::ConfigSource::kApiConfigSource:
      r.source = model::SdsRef::kCluster;
      if (source.api_config_source().grpc_services_size() > 0) r.cluster = source.api_config_source().grpc_services(0).envoy_grpc().cluster_name();
      if (r.cluster.empty()) (c / "sds_config.api_config_source").Fail("needs grpc_services[0].envoy_grpc.cluster_name");
      break;
    default: r.source = model::SdsRef::kStatic;  // a static secret of the bootstrap
  }
  return r;
}

uint16_t Version(const Ctx& c, tls3::TlsParameters::TlsProtocol v, uint16_t fallback) {
  switch (v) {
    case tls3::TlsParameters::TLSv1_0:
    case tls3::TlsParameters::TLSv1_1: c.Warn("TLS below 1.2 is not spoken: 1.2 is used"); return 0x0303;
    case tls3::TlsParameters::TLSv1_2: return 0x0303;
    case tls3::TlsParameters::TLSv1_3: return 0x0304;
    default: return fallback;
  }
}

void FillParameters(const Ctx& c, const tls3::TlsParameters& p, tls::Parameters& to) {
  to.min_version = Version(c / "tls_minimum_protocol_version", p.tls_minimum_protocol_version(), 0x0303);
  to.max_version = Version(c / "tls_maximum_protocol_version", p.tls_maximum_protocol_version(), 0x0304);
  if (to.min_version > to.max_version) return c.Fail("the minimum version is above the maximum");
  to.cipher_suites.assign(p.cipher_suites().begin(), p.cipher_suites().end());
  to.groups.assign(p.ecdh_curves().begin(), p.ecdh_curves().end());
  to.signature_algorithms.assign(p.signature_algorithms().begin(), p.signature_algorithms().end());
  for (int i = 0; i < p.compliance_policies_size(); ++i) {
    if (p.compliance_policies(i) == tls3::TlsParameters::FIPS_202205) to.fips_202205 = true;
    else (c / "compliance_policies")[i].Fail("only FIPS_202205 is supported");
  }
  if (auto known = tls::Check(to); !known) c.Fail(known.error().ToString());
}

void FillCommon(const Ctx& c, const tls3::CommonTlsContext& p, model::TlsConfig& to) {
  FillParameters(c / "tls_params", p.tls_params(), to.parameters);
  if (p.tls_certificates_size() > 1) (c / "tls_certificates").Fail("more than one certificate is not supported");
  if (p.tls_certificates_size() == 1) FillCertificate((c / "tls_certificates")[0], p.tls_certificates(0), to.certificate_chain, to.private_key);
  if (p.tls_certificate_sds_secret_configs_size() > 1) (c / "tls_certificate_sds_secret_configs").Fail("more than one certificate is not supported");
  for (int i = 0; i < p.tls_certificate_sds_secret_configs_size(); ++i)
    to.certificate_sds.push_back(ToSds((c / "tls_certificate_sds_secret_configs")[i], p.tls_certificate_sds_secret_configs(i)));
  if (p.has_tls_certificate_provider_instance()) (c / "tls_certificate_provider_instance").Fail("not supported");
  if (p.has_custom_handshaker()) (c / "custom_handshaker").Fail("not supported");
  if (p.has_custom_tls_certificate_selector()) (c / "custom_tls_certificate_selector").Fail("not supported");
  switch (p.validation_context_type_case()) {
    case tls3::CommonTlsContext::kValidationContext: FillValidation(c / "validation_context", p.validation_context(), to); break;
    case tls3::CommonTlsContext::kValidationContextSdsSecretConfig:
      to.has_validation = true;
      to.validation_sds.push_back(ToSds(c / "validation_context_sds_secret_config", p.validation_context_sds_secret_config()));
      break;
    case tls3::CommonTlsContext::kCombinedValidationContext: {
      const auto& v = p.combined_validation_context();
      Ctx vc = c / "combined_validation_context";
      FillValidation(vc / "default_validation_context", v.default_validation_context(), to);
      to.validation_sds.push_back(ToSds(vc / "validation_context_sds_secret_config", v.validation_context_sds_secret_config()));
      break;
    }
    case tls3::CommonTlsContext::VALIDATION_CONTEXT_TYPE_NOT_SET: break;
    default: c.Fail("this kind of validation context is not supported");
  }
  to.alpn.assign(p.alpn_protocols().begin(), p.alpn_protocols().end());
  for (const auto& s : to.peer_sans) to.spiffe = to.spiffe || s.value.starts_with("spiffe://");
  for (const auto& s : to.validation_sds) to.spiffe = to.spiffe || s.name == "ROOTCA";
}

}  // namespace

void FillCertificate(const Ctx& c, const tls3::TlsCertificate& t, model::DataSource& chain, model::DataSource& key) {
  if (t.has_pkcs12()) (c / "pkcs12").Fail("not supported");
  if (t.has_private_key_provider()) (c / "private_key_provider").Fail("not supported");
  if (t.has_password()) (c / "password").Fail("encrypted keys are not supported");
  if (!t.has_certificate_chain()) (c / "certificate_chain").Fail("is required");
  else chain = ToSource(c / "certificate_chain", t.certificate_chain());
  if (!t.has_private_key()) (c / "private_key").Fail("is required");
  else key = ToSource(c / "private_key", t.private_key());
}

void FillValidation(const Ctx& c, const tls3::CertificateValidationContext& v, model::TlsConfig& to) {
  to.has_validation = true;
  if (v.has_trusted_ca()) to.trusted_ca = ToSource(c / "trusted_ca", v.trusted_ca());
  else if (v.has_system_root_certs()) to.trusted_ca = {model::DataSource::kFile, kSystemRoots};
  if (v.has_crl()) to.crl = ToSource(c / "crl", v.crl());
  auto refuse = [&](const char* field, bool set) { if (set) (c / field).Fail("not supported"); };
  refuse("verify_certificate_spki", v.verify_certificate_spki_size() > 0);
  refuse("verify_certificate_hash", v.verify_certificate_hash_size() > 0);
  refuse("only_verify_leaf_cert_crl", v.only_verify_leaf_cert_crl());
  refuse("custom_validator_config", v.has_custom_validator_config());
  refuse("ca_certificate_provider_instance", v.has_ca_certificate_provider_instance());
  refuse("allow_expired_certificate", v.allow_expired_certificate());
  refuse("trust_chain_verification", v.trust_chain_verification() != tls3::CertificateValidationContext::VERIFY_TRUST_CHAIN);
  refuse("require_signed_certificate_timestamp", v.require_signed_certificate_timestamp().value());
  auto add = [&](const Ctx& mc, const envoy::type::matcher::v3::StringMatcher& m, tls::SanMatch::San san) {
    model::StringMatcher s = ToString(mc, m);
    if (s.ignore_case) (mc / "ignore_case").Fail("not supported for names in certificates");
    tls::SanMatch out;
    out.san = san;
    out.value = s.value;
    switch (s.kind) {
      case model::StringMatcher::kPrefix: out.kind = tls::SanMatch::kPrefix; break;
      case model::StringMatcher::kSuffix: out.kind = tls::SanMatch::kSuffix; break;
      case model::StringMatcher::kContains: out.kind = tls::SanMatch::kContains; break;
      case model::StringMatcher::kRegex: out.kind = tls::SanMatch::kRegex, out.value = s.regex.pattern(); break;
      default: break;
    }
    to.peer_sans.push_back(std::move(out));
  };
  for (int i = 0; i < v.match_typed_subject_alt_names_size(); ++i) {
    const auto& m = v.match_typed_subject_alt_names(i);
    Ctx mc = (c / "match_typed_subject_alt_names")[i];
    if (m.san_type() != tls3::SubjectAltNameMatcher::URI && m.san_type() != tls3::SubjectAltNameMatcher::DNS) (mc / "san_type").Fail("only URI and DNS are supported");
    add(mc / "matcher", m.matcher(), m.san_type() == tls3::SubjectAltNameMatcher::DNS ? tls::SanMatch::kDns : tls::SanMatch::kUri);
  }
  for (int i = 0; i < v.match_subject_alt_names_size(); ++i)
    add((c / "match_subject_alt_names")[i], v.match_subject_alt_names(i), tls::SanMatch::kAny);
}

std::shared_ptr<const model::TlsConfig> ToTls(const Ctx& c, const core::TransportSocket& s, bool upstream) {
  std::string type = TypeOf(s.typed_config());
  Ctx tc = c / "typed_config";
  if (type == "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" || (type.empty() && s.name() == "envoy.transport_sockets.raw_buffer")) return nullptr;
  auto out = std::make_shared<model::TlsConfig>();
  if (upstream && type == "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext") {
    auto p = Unpack<tls3::UpstreamTlsContext>(tc, s.typed_config());
    FillCommon(tc / "common_tls_context", p.common_tls_context(), *out);
    out->sni = p.sni();
    if (p.has_max_session_keys()) out->max_sessions = p.max_session_keys().value();
    out->key = "u" + Fingerprint(p);
    if (p.sni().size() > 255) (tc / "sni").Fail("is longer than 255 characters");
    if (p.auto_host_sni() || p.auto_sni_san_validation()) tc.Fail("auto_host_sni and auto_sni_san_validation are not supported");
  } else if (!upstream && type == "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext") {
    auto p = Unpack<tls3::DownstreamTlsContext>(tc, s.typed_config());
    FillCommon(tc / "common_tls_context", p.common_tls_context(), *out);
    out->require_client_certificate = p.require_client_certificate().value();
    out->parameters.client_order = p.prefer_client_ciphers();
    out->tickets = !p.disable_stateless_session_resumption();
    if (p.has_session_timeout()) out->session_lifetime_s = static_cast<uint32_t>(p.session_timeout().seconds());
    out->key = "d" + Fingerprint(p);
    if (!out->certificate_chain && out->certificate_sds.empty()) (tc / "common_tls_context").Fail("a server needs a certificate");
    if (out->require_client_certificate && !out->trusted_ca && out->validation_sds.empty())
      (tc / "require_client_certificate").Fail("needs a validation context with trusted_ca");
  } else {
    c.Fail("transport socket \"" + (type.empty() ? s.name() : type) + "\" is not supported");
  }
  return out;
}

base::Result<std::shared_ptr<const model::Secret>> TranslateSecret(const tls3::Secret& p, Warnings* warnings) {
  std::optional<base::Error> error;
  Ctx c{warnings, &error, ""};
  c.CheckFields(p);
  auto out = std::make_shared<model::Secret>();
  out->name = p.name();
  if (p.has_tls_certificate()) {
    FillCertificate(c / "tls_certificate", p.tls_certificate(), out->certificate_chain, out->private_key);
  } else if (p.has_validation_context()) {
    model::TlsConfig t;
    FillValidation(c / "validation_context", p.validation_context(), t);
    out->kind = model::Secret::kValidation;
    out->trusted_ca = t.trusted_ca, out->crl = t.crl, out->peer_sans = t.peer_sans;
  } else {
    c.Fail("secret \"" + p.name() + "\": only tls_certificate and validation_context are supported");
  }
  if (error) return *error;
  return std::shared_ptr<const model::Secret>(std::move(out));
}

std::vector<model::SdsRef> SecretRefs(const model::TlsConfig& tls) {
  std::vector<model::SdsRef> refs = tls.certificate_sds;
  refs.insert(refs.end(), tls.validation_sds.begin(), tls.validation_sds.end());
  return refs;
}

std::vector<model::SdsRef> SecretRefs(const model::Listener& listener) {
  std::vector<model::SdsRef> refs;
  auto add = [&](const std::shared_ptr<const model::FilterChain>& chain) {
    if (!chain || !chain->tls) return;
    auto more = SecretRefs(*chain->tls);
    refs.insert(refs.end(), more.begin(), more.end());
  };
  for (const auto& chain : listener.chains) add(chain);
  add(listener.default_chain);
  return refs;
}

base::Result<tls::ContextConfig> MakeContextConfig(const model::TlsConfig& tls, const model::Secret* certificate, const model::Secret* validation) {
  tls::ContextConfig out;
  auto read = [](const model::DataSource& s, std::string& to) -> base::Status {
    auto text = ReadSource(s);
    if (!text) return text.error();
    to = std::move(*text);
    return base::Ok{};
  };
  const model::DataSource& chain = certificate ? certificate->certificate_chain : tls.certificate_chain;
  const model::DataSource& key = certificate ? certificate->private_key : tls.private_key;
  const model::DataSource& roots = validation ? validation->trusted_ca : tls.trusted_ca;
  if (auto s = read(chain, out.certificate_chain_pem); !s) return std::move(s.error()).In("certificate_chain");
  if (auto s = read(key, out.private_key_pem); !s) return std::move(s.error()).In("private_key");
  if (auto s = read(roots, out.trusted_ca_pem); !s) return std::move(s.error()).In("trusted_ca");
  if (auto s = read(validation && validation->crl ? validation->crl : tls.crl, out.crl_pem); !s) return std::move(s.error()).In("crl");
  if (!tls.validation_sds.empty() && out.trusted_ca_pem.empty()) return base::Error("the secret has no trusted_ca").In("trusted_ca");
  out.peer_sans = tls.peer_sans;
  // As Envoy: the names of a secret are added to those of the default context.
  if (validation) out.peer_sans.insert(out.peer_sans.end(), validation->peer_sans.begin(), validation->peer_sans.end());
  out.require_peer_certificate = tls.require_client_certificate;
  out.alpn = tls.alpn;
  out.sni = tls.sni;
  out.parameters = tls.parameters;
  out.tickets = tls.tickets, out.session_lifetime_s = tls.session_lifetime_s, out.max_sessions = tls.max_sessions;
  out.spiffe = tls.spiffe;
  return out;
}

}  // namespace weft::xds
