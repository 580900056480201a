// Secrets, the files some of them are in, and the TLS contexts made of them.
#include <sys/stat.h>

#include "sidecar/base/log.h"
#include "sidecar/xds/parse.h"
#include "sidecar/xds/snapshot_builder.h"
#include "sidecar/xds/translate.h"

namespace weft::xds {

bool SnapshotBuilder::Local(const model::SdsRef& ref) const {
  return expect_identity_ && ref.source != model::SdsRef::kFile && ref.source != model::SdsRef::kCluster &&
         (ref.name == "default" || ref.name == "ROOTCA");
}

const SnapshotBuilder::SecretSlot* SnapshotBuilder::Find(const model::SdsRef& ref) const {
  if (ref.source == model::SdsRef::kFile) {
    auto file = files_.find(ref.path);
    if (file == files_.end()) return nullptr;
    auto it = file->second.secrets.find(ref.name);
    return it == file->second.secrets.end() ? nullptr : &it->second;
  }
  const auto& from = ref.source == model::SdsRef::kStatic && !Local(ref) ? static_secrets_ : secrets_;
  auto it = from.find(ref.name);
  return it == from.end() ? nullptr : &it->second;
}

void SnapshotBuilder::MarkSecretUsers() {
  for (auto& [name, slot] : clusters_) {
    if (slot.active && slot.active->config->tls) slot.dirty = true;
  }
  for (auto& [name, slot] : listeners_) slot.dirty = true;
}

base::Result<std::shared_ptr<const tls::Context>> SnapshotBuilder::ContextFor(const model::TlsConfig& t, bool server, bool* waiting) {
  *waiting = false;
  std::string key = (server ? "s|" : "c|") + t.key;
  auto secret = [&](const std::vector<model::SdsRef>& refs) -> const model::Secret* {
    if (refs.empty()) return nullptr;
    const SecretSlot* s = Find(refs.front());
    if (!s) return *waiting = true, nullptr;
    key += "|" + std::to_string(s->generation);
    return s->secret.get();
  };
  const model::Secret* certificate = secret(t.certificate_sds);
  const model::Secret* validation = secret(t.validation_sds);
  if (*waiting) return std::shared_ptr<const tls::Context>();
  auto is_file = [](const model::DataSource& d) { return d.kind == model::DataSource::kFile; };
  bool files = is_file(t.certificate_chain) || is_file(t.private_key) || is_file(t.trusted_ca) || is_file(t.crl) ||
               (certificate && (is_file(certificate->certificate_chain) || is_file(certificate->private_key))) ||
               (validation && (is_file(validation->trusted_ca) || is_file(validation->crl)));
  bool cached = !files && !t.key.empty();
  if (cached) {
    auto it = contexts_.find(key);
    if (it != contexts_.end()) return it->second;
  }
  auto config = MakeContextConfig(t, certificate, validation);
  if (!config) return config.error();
  auto made = server ? tls::Context::Server(*config) : tls::Context::Client(*config);
  if (made && cached) contexts_[key] = *made;
  return made;
}

void SnapshotBuilder::ReadFiles() {
  bool changed = false;
  for (auto& [path, file] : files_) {
    struct stat st{};
    std::string stamp = stat(path.c_str(), &st) != 0 ? "absent"
        : std::to_string(st.st_ino) + "/" + std::to_string(st.st_size) + "/" + std::to_string(st.st_mtim.tv_sec) + "." + std::to_string(st.st_mtim.tv_nsec);
    if (stamp == file.stamp) continue;
    file.stamp = stamp;
    auto secrets = ReadSecretFile(path);
    std::string error = secrets ? "" : secrets.error().ToString();
    if (error != file.error && !error.empty()) WEFT_LOG(kSecret, kWarn, "secret file: ", error);
    file.error = error;
    if (!secrets) continue;
    file.secrets.clear();
    for (auto& s : *secrets) file.secrets[s->name] = {s, ++secret_generation_, {"", nullptr, loop_->wall_now()}, {}};
    changed = true;
  }
  if (!files_.empty()) loop_->Arm(&file_timer_, base::kSecond);
  if (!changed) return;
  MarkSecretUsers();
  Changed();
}

}  // namespace weft::xds
