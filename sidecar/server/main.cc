#include "sidecar/server/options.h"
#include "sidecar/server/sidecar.h"

int main(int argc, char** argv) {
  weft::server::Sidecar sidecar(weft::server::ParseOptions(argc, argv));
  return sidecar.Run();
}
