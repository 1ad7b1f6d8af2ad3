// Runs, retrains and hot-swaps what learnd publishes, with TensorFlow alone: no Python, no Keras, none of learnd.
//
//   learnd_edge predict EXPORT [--lite]            rows on standard input, predictions on standard output
//   learnd_edge follow EXPORTS                     the same, each row by the version that is the newest when it comes
//   learnd_edge learn EXPORT STATE [--from STATE]  rows with their targets behind; prints losses, saves the state
//
// EXPORT is a folder of data_dir/exports, EXPORTS all of them. A row is one line of numbers, in the order of the
// features; a window is its readings one after the other, the oldest first. A line that is no row, or that the model
// refuses, is named on standard error and left out. STATE is a path prefix, as TensorFlow's checkpoints have them.
// Exit status: 0, 64 for wrong usage, 65 if lines were left out, 70 where TensorFlow reports an error.

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <iomanip>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tensorflow/cc/saved_model/loader.h"
#include "tensorflow/core/framework/tensor.h"
#include "tensorflow/core/public/session_options.h"

namespace {

using tensorflow::Tensor;
using Row = std::vector<float>;
using Tensors = std::map<std::string, Tensor>;

struct Failure : std::runtime_error {
  Failure(int status, const std::string& what) : std::runtime_error(what), status(status) {}
  int status;
};

// Where `data` was given, an invalid argument is the data's fault, not TensorFlow's.
void Check(const absl::Status& status, const std::string& doing, bool data = false) {
  if (status.ok()) return;
  const std::string said(status.message());
  throw Failure(data && absl::IsInvalidArgument(status) ? 65 : 70, doing + ": " + said.substr(0, said.find('\n')));
}

// One loaded version. Calls may come from several threads; `Learn` and `Restore` change what the others see.
class Model {
 public:
  // A lite bundle keeps only what serving needs of the file, and takes less memory.
  explicit Model(const std::string& folder, bool lite = false) {
    tensorflow::SessionOptions session;
    const std::string path = folder + "/saved_model";
    if (lite) {
      auto bundle = std::make_unique<tensorflow::SavedModelBundleLite>();
      Check(tensorflow::LoadSavedModel(session, {}, path, {"serve"}, bundle.get()), "loading " + path);
      bundle_ = std::move(bundle);
    } else {
      auto bundle = std::make_unique<tensorflow::SavedModelBundle>();
      Check(tensorflow::LoadSavedModel(session, {}, path, {"serve"}, bundle.get()), "loading " + path);
      bundle_ = std::move(bundle);
    }
  }

  // Raw values in, in the order of the features; raw predictions out, one tensor per output.
  Tensors Predict(const std::vector<Row>& rows) const {
    return Call("serving_default", {{"inputs", Stack(rows, "serving_default", "inputs")}});
  }

  // One optimizer step on all rows together; returns their mean loss from before it.
  float Learn(const std::vector<Row>& rows, const std::vector<Row>& targets) const {
    Tensors inputs{{"x", Stack(rows, "learn", "x")}};
    if (Width("learn", "y") > 0) inputs.emplace("y", Stack(targets, "learn", "y"));
    return Call("learn", inputs).at("loss").scalar<float>()();
  }

  // All that learning changes, optimizer included, as a checkpoint that tf.train.load_checkpoint reads too.
  void Save(const std::string& prefix) const { Call("save", {{"path", Text(prefix)}}); }
  void Restore(const std::string& prefix) const { Call("restore", {{"path", Text(prefix)}}); }

  // How many numbers one row of an input takes; 0 where there is no such input.
  int64_t Width(const std::string& signature, const std::string& input) const {
    const auto& inputs = Signature(signature).inputs();
    const auto found = inputs.find(input);
    if (found == inputs.end()) return 0;
    int64_t width = 1;
    for (int i = 1; i < found->second.tensor_shape().dim_size(); ++i) {
      width *= found->second.tensor_shape().dim(i).size();
    }
    return width;
  }

 private:
  const tensorflow::SignatureDef& Signature(const std::string& name) const {
    const auto& all = bundle_->GetSignatures();
    const auto found = all.find(name);
    if (found == all.end()) throw Failure(70, "the export has no signature " + name);
    return found->second;
  }

  Tensors Call(const std::string& name, const Tensors& inputs) const {
    const auto& signature = Signature(name);
    std::vector<std::pair<std::string, Tensor>> feeds;
    for (const auto& [input, tensor] : inputs) feeds.emplace_back(signature.inputs().at(input).name(), tensor);
    std::vector<std::string> outputs, fetches;
    for (const auto& [output, info] : signature.outputs()) {
      outputs.push_back(output);
      fetches.push_back(info.name());
    }
    std::vector<Tensor> results;
    Check(bundle_->GetSession()->Run(feeds, fetches, {}, &results), name, true);
    Tensors named;
    for (size_t i = 0; i < outputs.size(); ++i) named.emplace(outputs[i], results[i]);
    return named;
  }

  Tensor Stack(const std::vector<Row>& rows, const std::string& signature, const std::string& input) const {
    for (const Row& row : rows) {
      if (static_cast<int64_t>(row.size()) != Width(signature, input)) {
        throw Failure(65, "expected " + std::to_string(Width(signature, input)) + " numbers, got " +
                              std::to_string(row.size()));
      }
    }
    const auto& declared = Signature(signature).inputs().at(input).tensor_shape();
    tensorflow::TensorShape shape({static_cast<int64_t>(rows.size())});
    for (int i = 1; i < declared.dim_size(); ++i) shape.AddDim(declared.dim(i).size());
    Tensor tensor(tensorflow::DT_FLOAT, shape);
    float* next = tensor.flat<float>().data();
    for (const Row& row : rows) next = std::copy(row.begin(), row.end(), next);
    return tensor;
  }

  static Tensor Text(const std::string& text) {
    Tensor tensor(tensorflow::DT_STRING, {});
    tensor.scalar<tensorflow::tstring>()() = text;
    return tensor;
  }

  std::unique_ptr<tensorflow::SavedModelBundleInterface> bundle_;
};

// The newest version in a folder of exports, loaded beside the calls and put in the place of the older one at once.
class Newest {
 public:
  explicit Newest(std::string exports) : exports_(std::move(exports)) {
    if (!Look()) throw Failure(70, "no version in " + exports_);
    watcher_ = std::thread([this] {
      std::string told;
      while (!stopping_) {
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        try {
          Look();
          told.clear();
        } catch (const std::exception& error) {  // the older version goes on; the next look tries again
          if (told != error.what()) std::cerr << error.what() << std::endl;
          told = error.what();
        }
      }
    });
  }

  ~Newest() {
    stopping_ = true;
    watcher_.join();
  }

  // Whoever holds it may go on using it, whatever comes after.
  std::pair<int64_t, std::shared_ptr<const Model>> Get() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return {version_, model_};
  }

 private:
  // learnd publishes a version by one rename, so what has a number for a name is whole.
  bool Look() {
    int64_t newest = 0;
    for (const auto& entry : std::filesystem::directory_iterator(exports_)) {
      const std::string name = entry.path().filename();
      if (name.find_first_not_of("0123456789") == std::string::npos) newest = std::max(newest, int64_t{std::stoll(name)});
    }
    if (newest <= version_) return false;
    auto model = std::make_shared<const Model>(exports_ + "/" + std::to_string(newest));
    std::lock_guard<std::mutex> lock(mutex_);
    version_ = newest;
    model_ = std::move(model);
    return true;
  }

  const std::string exports_;
  mutable std::mutex mutex_;
  int64_t version_ = 0;
  std::shared_ptr<const Model> model_;
  std::atomic<bool> stopping_{false};
  std::thread watcher_;
};

// The numbers of a line. The stream's own >> would take "-" and 1e999 at its end for the end.
Row Numbers(const std::string& line) {
  std::istringstream fields(line);
  Row row;
  for (std::string field; fields >> field;) {
    char* end = nullptr;
    row.push_back(std::strtof(field.c_str(), &end));
    if (*end != '\0' || !std::isfinite(row.back())) throw Failure(65, "\"" + field + "\" is no finite float");
  }
  return row;
}

// Gives `take` every row of standard input, each as soon as it is there; returns 65 if lines were left out, else 0.
template <typename Take>
int EachRow(Take take) {
  int status = 0;
  std::string line;
  for (int64_t number = 1; std::getline(std::cin, line); ++number) {
    try {
      take(Numbers(line));
    } catch (const Failure& failure) {
      if (failure.status != 65) throw;
      std::cerr << "line " << number << ": " << failure.what() << std::endl;
      status = 65;
    }
  }
  return status;
}

void Answer(const Model& model, const Row& row) {
  for (const auto& [name, tensor] : model.Predict({row})) {
    const auto values = tensor.flat<float>();
    std::cout << name;
    for (int64_t i = 0; i < values.size(); ++i) std::cout << ' ' << values(i);
    std::cout << '\n';
  }
}

int Predict(const std::string& folder, bool lite) {
  const Model model(folder, lite);
  return EachRow([&](const Row& row) { Answer(model, row); });
}

int Follow(const std::string& exports) {
  const Newest newest(exports);
  int64_t shown = 0;
  return EachRow([&](const Row& row) {
    const auto [version, model] = newest.Get();
    if (version != shown) std::cerr << "version " << version << std::endl;
    shown = version;
    Answer(*model, row);
  });
}

int Learn(const std::string& folder, const std::string& to, const std::string& from) {
  const Model model(folder);
  if (!from.empty()) model.Restore(from);
  const int64_t inputs = model.Width("learn", "x"), numbers = inputs + model.Width("learn", "y");
  const int status = EachRow([&](const Row& row) {
    if (static_cast<int64_t>(row.size()) != numbers) {
      throw Failure(65, "expected " + std::to_string(numbers) + " numbers, got " + std::to_string(row.size()));
    }
    std::cout << model.Learn({{row.begin(), row.begin() + inputs}}, {{row.begin() + inputs, row.end()}}) << '\n';
  });
  model.Save(to);
  return status;
}

int Usage() {
  std::cerr << "usage: learnd_edge predict EXPORT [--lite] | follow EXPORTS | learn EXPORT STATE [--from STATE]\n";
  return 64;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  const std::string command = words.empty() ? "" : words[0];
  const size_t count = words.size();
  std::cout << std::setprecision(9);  // a float comes back bit by bit
  try {
    if (command == "predict" && (count == 2 || (count == 3 && words[2] == "--lite"))) {
      return Predict(words[1], count == 3);
    }
    if (command == "learn" && (count == 3 || (count == 5 && words[3] == "--from"))) {
      return Learn(words[1], words[2], count == 5 ? words[4] : "");
    }
    if (command == "follow" && count == 2) return Follow(words[1]);
    return Usage();
  } catch (const Failure& failure) {
    std::cerr << failure.what() << std::endl;
    return failure.status;
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return 70;
  }
}
